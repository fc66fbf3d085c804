// All that volconv computes on a GPU by itself. kernels.py has a function for each kernel.
//
// Stored is the dtype of voxels as they lie in memory, Number the one that is computed in (float or double). An output
// is one fixed order of fused multiply-adds wherever its block begins, so its bits do not depend on blocks. No tap is
// skipped: NaN and infinity spread as in the direct sum. This file is compiled by NVRTC without headers, and for the
// host by tests/gpu_host, which has stand-ins for little else than __shared__ and __syncthreads().

typedef long long Index;

// ---- numbers -------------------------------------------------------------------------------------------------------

struct Half {
  unsigned short bits;
};

__device__ __forceinline__ float half_value(Half half) {
#ifdef __CUDA_ARCH__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half.bits));
  return value;
#else
  const int sign = half.bits >> 15, exponent = half.bits >> 10 & 31, fraction = half.bits & 1023;
  float value = exponent == 0 ? ldexpf(float(fraction), -24)
                : exponent < 31 ? ldexpf(float(fraction + 1024), exponent - 25)
                : fraction      ? NAN
                                : INFINITY;
  return sign ? -value : value;
#endif
}

template <typename Number, typename Stored> __device__ __forceinline__ Number number(Stored value) {
  return static_cast<Number>(value);
}
template <> __device__ __forceinline__ float number<float, Half>(Half value) { return half_value(value); }
template <> __device__ __forceinline__ double number<double, Half>(Half value) { return half_value(value); }

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// Rounded twice, as NumPy does it, whatever the compiler would contract.
__device__ __forceinline__ float scaled(float value, float slope, float intercept) {
  return __fadd_rn(__fmul_rn(value, slope), intercept);
}
__device__ __forceinline__ double scaled(double value, double slope, double intercept) {
  return __dadd_rn(__dmul_rn(value, slope), intercept);
}

// How partial sums are added up: as they are (1), or with compensation (2), where a term is rounded but twice however
// many there are (Kahan). A compensation that is not finite would make NaN of infinity.
template <typename Number, int SUMS> struct Total {
  Number sum, lost;

  __device__ __forceinline__ Total() : sum(0), lost(0) {}

  __device__ __forceinline__ void add(Number part) {
    if (SUMS == 1) {
      sum += part;
    } else {
      const Number wanted = part - lost, next = sum + wanted;
      lost = (next - sum) - wanted;
      if (!(lost - lost == Number(0))) lost = 0;
      sum = next;
    }
  }
};

// ---- voxels --------------------------------------------------------------------------------------------------------

// How voxels lie in memory and what they mean. Strides are in items of Stored; a complex voxel is two channels.
template <typename Number> struct Layout {
  Index channel, depth, row, voxel;
  Number fill[2], slope, intercept;
  int parts, scaling;
};

// A padded block as it is seen through tables: for each index along an axis that of a voxel, or -1 for what is filled
// in. Without a table an index is its own.
template <typename Stored, typename Number> struct Source {
  const Stored *values;
  const int *depths, *rows, *voxels;
  const Layout<Number> &layout;

  __device__ __forceinline__ static int looked_up(const int *table, int index) { return table ? table[index] : index; }

  __device__ __forceinline__ const Stored *channel(int index) const {
    return layout.parts == 1 ? values + index * layout.channel : values + (index >> 1) * layout.channel + (index & 1);
  }

  __device__ __forceinline__ Number fill(int channel) const {
    return layout.parts == 2 && (channel & 1) ? layout.fill[1] : layout.fill[0];
  }

  // What is added to the channel's scaled values: real parts only have an intercept.
  __device__ __forceinline__ Number intercept(int channel) const {
    return layout.parts == 2 && (channel & 1) ? Number(0) : layout.intercept;
  }

  __device__ __forceinline__ Number loaded(const Stored *place, Number intercept) const {
    const Number value = number<Number>(*place);
    return layout.scaling ? scaled(value, layout.slope, intercept) : value;
  }

  // Any voxel of the padded block.
  __device__ __forceinline__ Number value(int c, int d, int h, int w) const {
    d = looked_up(depths, d), h = looked_up(rows, h), w = looked_up(voxels, w);
    if ((d | h | w) < 0) return fill(c);
    return loaded(channel(c) + d * layout.depth + h * layout.row + w * layout.voxel, intercept(c));
  }
};

// ---- gather: a padded block, or tiles of one, as an array -----------------------------------------------------------

struct Tiles {
  int number[3], step[3], size[3], padded[3], channels;
};

// out: (tiles along D, H, W, channels, size), zero where a tile reaches beyond the padded block. Blocks are lines.
template <typename Stored, typename Number>
__global__ void __launch_bounds__(256)
    gather(const Stored *values, const int *depths, const int *rows, const int *voxels, Layout<Number> layout,
           Tiles tiles, Number *__restrict__ out) {
  const Source<Stored, Number> source = {values, depths, rows, voxels, layout};
  const Index lines = Index(tiles.number[0]) * tiles.number[1] * tiles.number[2] * tiles.channels * tiles.size[0] *
                      tiles.size[1];
  const Index line = Index(blockIdx.x) * blockDim.y + threadIdx.y;
  if (line >= lines) return;
  Index rest = line;
  const int h = int(rest % tiles.size[1]);
  rest /= tiles.size[1];
  const int d = int(rest % tiles.size[0]);
  rest /= tiles.size[0];
  const int c = int(rest % tiles.channels);
  rest /= tiles.channels;
  const int first = int(rest % tiles.number[2]) * tiles.step[2];
  rest /= tiles.number[2];
  const int y = int(rest % tiles.number[1]) * tiles.step[1] + h;
  const int z = int(rest / tiles.number[1]) * tiles.step[0] + d;
  const bool within = z < tiles.padded[0] && y < tiles.padded[1];
  for (int w = threadIdx.x; w < tiles.size[2]; w += blockDim.x) {
    const bool there = within && first + w < tiles.padded[2];
    out[line * tiles.size[2] + w] = there ? source.value(c, z, y, first + w) : Number(0);
  }
}

// ---- generic: any correlation --------------------------------------------------------------------------------------

// per_in and per_out: channels of a group. size: outputs along D, H, W.
struct Correlation {
  int per_in, per_out, groups, kernel[3], stride[3], dilation[3], size[3];
};

// Taps whose products are one chain of multiply-adds, and how many output channels share what a thread loads.
enum { CHAIN = 28, SHARE = 4 };

// out: (groups * per_out, size). weight: (groups * per_out, per_in, kernel). A block is 32 outputs along W in 8 lines.
template <typename Stored, typename Number>
__global__ void __launch_bounds__(256)
    generic(const Stored *values, const int *depths, const int *rows, const int *voxels, Layout<Number> layout,
            Correlation problem, const Number *__restrict__ weight, const Number *__restrict__ bias,
            Number *__restrict__ out) {
  const Source<Stored, Number> source = {values, depths, rows, voxels, layout};
  const int *size = problem.size, *kernel = problem.kernel;
  const int across = (size[2] - 1) / int(blockDim.x) + 1, shares = (problem.per_out - 1) / SHARE + 1;
  const int w = int(blockIdx.x % across) * blockDim.x + threadIdx.x;
  Index line = Index(blockIdx.x / across) * blockDim.y + threadIdx.y;
  if (w >= size[2] || line >= Index(problem.groups) * shares * size[0] * size[1]) return;
  const int h = int(line % size[1]);
  line /= size[1];
  const int d = int(line % size[0]);
  line /= size[0];
  const int first = int(line % shares) * SHARE, group = int(line / shares);
  const Index taps = Index(kernel[0]) * kernel[1] * kernel[2];
  const Number *weights[SHARE];
#pragma unroll
  for (int r = 0; r < SHARE; ++r) {
    const int channel = first + r < problem.per_out ? first + r : problem.per_out - 1;
    weights[r] = weight + (Index(group) * problem.per_out + channel) * problem.per_in * taps;
  }
  Total<Number, 2> totals[SHARE];
  Number part[SHARE] = {};
  int length = 0;
  Index tap = 0;
  for (int c = 0; c < problem.per_in; ++c) {
    const int channel = group * problem.per_in + c;
    for (int z = 0; z < kernel[0]; ++z) {
      for (int y = 0; y < kernel[1]; ++y) {
        for (int x = 0; x < kernel[2]; ++x, ++tap) {
          const Number value = source.value(channel, d * problem.stride[0] + z * problem.dilation[0],
                                            h * problem.stride[1] + y * problem.dilation[1],
                                            w * problem.stride[2] + x * problem.dilation[2]);
#pragma unroll
          for (int r = 0; r < SHARE; ++r) part[r] = multiply_add(weights[r][tap], value, part[r]);
          if (++length == CHAIN) {
            length = 0;
#pragma unroll
            for (int r = 0; r < SHARE; ++r) totals[r].add(part[r]), part[r] = 0;
          }
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < SHARE; ++r) {
    if (first + r >= problem.per_out) break;
    totals[r].add(part[r]);
    const int channel = group * problem.per_out + first + r;
    out[((Index(channel) * size[0] + d) * size[1] + h) * size[2] + w] =
        bias ? totals[r].sum + bias[channel] : totals[r].sum;
  }
}
