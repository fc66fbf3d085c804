// All that volconv computes on a GPU by itself. kernels.py has a function for each kernel.
//
// Stored is the dtype of voxels as they lie in memory, Number the one that is computed in (float or double). An output
// is one fixed order of fused multiply-adds wherever its block begins, so its bits do not depend on blocks. No tap is
// skipped: NaN and infinity spread as in the direct sum. This file is compiled by NVRTC without headers, and for the
// host by tests/gpu_host, which has stand-ins for little else than __shared__ and __syncthreads().

typedef long long Index;

enum { THREADS = 256 };  // of every block

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

__device__ __forceinline__ void write(float *place, float value) { *place = value; }
__device__ __forceinline__ void write(double *place, double value) { *place = value; }

// Rounded to the nearest, to even where there are two.
__device__ __forceinline__ void write(Half *place, float value) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(place->bits) : "f"(value));
#else
  const unsigned short sign = std::signbit(value) ? 0x8000 : 0;
  const float size = fabsf(value);
  int bits;
  if (std::isnan(value)) {
    bits = 0x7fff;
  } else if (size >= 65520.0f) {
    bits = 0x7c00;
  } else {
    const int exponent = size < 6.103515625e-05f ? -14 : ilogbf(size);
    bits = (exponent + 14) * 1024 + int(lrintf(ldexpf(size, 10 - exponent)));
  }
  place->bits = static_cast<unsigned short>(bits | sign);
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

// A pointer to global memory that the compiler takes as it is: else it adds up every address from all its parts, in 64
// bits.
template <typename Value> __device__ __forceinline__ Value *opaque(Value *pointer) {
#ifdef __CUDA_ARCH__
  asm("" : "+l"(pointer));
  __builtin_assume(__isGlobal(pointer));
#endif
  return pointer;
}

__device__ __forceinline__ bool is_finite(float value) { return fabsf(value) <= 3.402823466e+38f; }
__device__ __forceinline__ bool is_finite(double value) { return fabs(value) <= 1.7976931348623157e+308; }

// A number that the compiler knows nothing of: what is made of it is made anew, not kept in registers.
__device__ __forceinline__ unsigned opaque(unsigned value) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(value));
#endif
  return value;
}

// Add a chain of products to a total. The chain keeps what was lost to rounding, and the next one begins with that: so
// a term is rounded but twice more, however many chains there are (Kahan's compensation). What is lost of an infinite
// total is no number, and would make the total none.
template <typename Number> __device__ __forceinline__ void add_chain(Number &total, Number &chain) {
  const Number next = total + chain;
  chain -= next - total;
  if (!is_finite(chain)) chain = 0;
  total = next;
}

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

  // A line of the padded block along W.
  struct Line {
    const Stored *start;
    Number fill, intercept;
    bool filled;
  };

  __device__ __forceinline__ Line line(int c, int d, int h) const {
    d = looked_up(depths, d), h = looked_up(rows, h);
    const bool filled = (d | h) < 0;
    return {opaque(channel(c) + (filled ? 0 : d * layout.depth + h * layout.row)), fill(c), intercept(c), filled};
  }

  __device__ __forceinline__ Number at(const Line &line, int w) const {
    w = looked_up(voxels, w);
    return line.filled || w < 0 ? line.fill : loaded(line.start + w * layout.voxel, line.intercept);
  }
};

// ---- gather: a padded block, or tiles of one, as an array -----------------------------------------------------------

struct Tiles {
  int number[3], step[3], size[3], padded[3], channels;
};

// out: (tiles along D, H, W, channels, size), zero where a tile reaches beyond the padded block. Blocks are lines.
template <typename Stored, typename Number>
__global__ void __launch_bounds__(THREADS)
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
  const typename Source<Stored, Number>::Line from = source.line(c, within ? z : 0, within ? y : 0);
  for (int w = threadIdx.x; w < tiles.size[2]; w += blockDim.x) {
    const bool there = within && first + w < tiles.padded[2];
    out[line * tiles.size[2] + w] = there ? source.at(from, first + w) : Number(0);
  }
}

// ---- generic: any correlation --------------------------------------------------------------------------------------

// per_in and per_out: channels of a group. size: outputs along D, H, W.
struct Correlation {
  int per_in, per_out, groups, kernel[3], stride[3], dilation[3], size[3];
};

// Taps whose products are one chain of multiply-adds.
enum { CHAIN = 28 };

// out: (groups * per_out, size). weight: (groups * per_out, per_in, kernel). A block is 32 outputs along W in 8 lines;
// SHARE output channels share what a thread loads.
template <typename Stored, typename Number, int SHARE>
__global__ void __launch_bounds__(THREADS, 1)
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
  Number totals[SHARE] = {}, chains[SHARE] = {};
  int length = 0;
  Index tap = 0;
  for (int c = 0; c < problem.per_in; ++c) {
    const int channel = group * problem.per_in + c;
    for (int z = 0; z < kernel[0]; ++z) {
      for (int y = 0; y < kernel[1]; ++y) {
        const typename Source<Stored, Number>::Line from =
            source.line(channel, d * problem.stride[0] + z * problem.dilation[0],
                        h * problem.stride[1] + y * problem.dilation[1]);
        for (int x = 0; x < kernel[2]; ++x, ++tap) {
          const Number value = source.at(from, w * problem.stride[2] + x * problem.dilation[2]);
#pragma unroll
          for (int r = 0; r < SHARE; ++r) chains[r] = multiply_add(weights[r][tap], value, chains[r]);
          if (++length == CHAIN) {
            length = 0;
#pragma unroll
            for (int r = 0; r < SHARE; ++r) add_chain(totals[r], chains[r]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < SHARE; ++r) {
    if (first + r >= problem.per_out) break;
    add_chain(totals[r], chains[r]);
    const int channel = group * problem.per_out + first + r;
    out[((Index(channel) * size[0] + d) * size[1] + h) * size[2] + w] =
        bias ? totals[r] + bias[channel] : totals[r];
  }
}

// ---- tiles in shared memory ----------------------------------------------------------------------------------------

// Numbers that are loaded and stored at once: 16 bytes. A thread has as many neighbouring outputs along W.
template <typename Number> struct alignas(16) Vector {
  enum { width = 16 / sizeof(Number) };
  Number at[width];
};

template <typename Number, int TAPS> struct Weights {
  Number at[TAPS];
};

// A part of a padded plane on its way to shared memory, in lines of whole vectors. Where each of its voxels lies is
// looked up once and holds for all planes of all channels; a plane's voxels wait in registers while another is used.
template <typename Stored, typename Number, int ROWS, int COLUMNS> struct Plane {
  enum {
    width = Vector<Number>::width,
    pitch = (COLUMNS + width - 1) / width * width,
    items = ROWS * pitch,
    loads = (items + THREADS - 1) / THREADS
  };
  int offsets[loads];
  Stored held[loads];
  bool filled;

  // The part from (h, w) on of planes that have so many rows and columns.
  __device__ __forceinline__ void place(const Source<Stored, Number> &source, int thread, int h, int w, int high,
                                        int wide) {
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      const int item = thread + i * THREADS, row = h + item / pitch, voxel = w + item % pitch;
      offsets[i] = -1;
      if (item < items && item % pitch < COLUMNS && row < high && voxel < wide) {
        const int y = source.looked_up(source.rows, row), x = source.looked_up(source.voxels, voxel);
        if ((y | x) >= 0) offsets[i] = int(y * source.layout.row + x * source.layout.voxel);
      }
    }
  }

  // Begin to load plane d of a channel; -1 is one that is filled in.
  __device__ __forceinline__ void fetch(const Source<Stored, Number> &source, const Stored *channel, int d) {
    const Stored *plane = opaque(channel + d * source.layout.depth);
    filled = d < 0;
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      held[i] = Stored();
      if (offsets[i] >= 0 && !filled) held[i] = plane[offsets[i]];
    }
  }

  // Cast and scale it.
  __device__ __forceinline__ void store(const Source<Stored, Number> &source, Vector<Number> *target, int thread,
                                        Number fill, Number intercept) const {
    Number *numbers = target->at;
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      const int item = thread + i * THREADS;
      const Number value = source.loaded(held + i, intercept);
      if (item < items) numbers[item] = offsets[i] < 0 || filled ? fill : value;
    }
  }
};

// A line's window of so many numbers from shared memory.
template <typename Number, int SIZE> struct Window {
  enum { width = Vector<Number>::width, vectors = (SIZE + width - 1) / width };
  Vector<Number> part[vectors];

  __device__ __forceinline__ void load(const Vector<Number> *from) {
#pragma unroll
    for (int i = 0; i < vectors; ++i) part[i] = from[i];
  }

  __device__ __forceinline__ Number operator[](int i) const { return part[i / width].at[i % width]; }
};

// ---- small: one input channel, small kernels -----------------------------------------------------------------------

// aligned: whether every line of the output begins at a multiple of 16 bytes. depth: planes of outputs for a block.
struct March {
  int channel, size[3], depth, aligned;
};

// How often a term may be rounded, each time by half an epsilon: 16 epsilon in all, with the bias.
enum { ROUNDINGS = 30 };

// Rows of a kernel's plane whose products are one chain: all taps (0) where these are few. A term is rounded once for
// each tap of its chain, and once for each other chain that is added to: in its plane, then in the output.
__host__ __device__ constexpr int chained_rows(int kd, int kh, int kw) {
  if (kd * kh * kw <= ROUNDINGS) return 0;
  int rows = kh;
  while (rows > 1 && rows * kw + (kh - 1) / rows + kd - 1 > ROUNDINGS) --rows;
  return rows;
}

// Blocks that share a multiprocessor: the fewer taps, the more its memory has to do, and the more must be under way.
__host__ __device__ constexpr int resident(int taps, int bytes) {
  return taps <= 27 ? 4 : bytes == 8 ? 1 : taps <= 125 ? 3 : 2;
}

// One output channel of one input channel; stride and dilation 1. A block marches along D, and so does a queue of the
// sums that a plane adds to. Planes are double-buffered: while one is used, the next is loaded. A thread has neighbouring
// outputs along W; where lines are not aligned they are stored by way of shared memory, so that warps store whole lines.
template <typename Stored, typename Number, int KD, int KH, int KW>
__global__ void __launch_bounds__(THREADS, resident(KD * KH * KW, sizeof(Number)))
    small(const Stored *__restrict__ values, const int *__restrict__ depths, const int *__restrict__ rows,
          const int *__restrict__ voxels, const Layout<Number> layout, const March march,
          const Weights<Number, KD * KH * KW> weights, const Number bias, Number *__restrict__ out) {
  enum { X = Vector<Number>::width, WIDE = 16 * X, HIGH = 16, CHAINED = chained_rows(KD, KH, KW) };
  typedef Plane<Stored, Number, HIGH + KH - 1, WIDE + KW - 1> Part;
  __shared__ Vector<Number> planes[2][Part::items / X], staged[2][THREADS];
  const Source<Stored, Number> source = {values, depths, rows, voxels, layout};
  const int thread = threadIdx.x, tx = thread % 16, ty = thread / 16;
  const int w = blockIdx.x * WIDE, h = blockIdx.y * HIGH, d = blockIdx.z * march.depth;
  const int outputs = march.size[0] - d < march.depth ? march.size[0] - d : march.depth;
  const Index area = Index(march.size[1]) * march.size[2];
  const Stored *channel = source.channel(march.channel);
  const Number fill = source.fill(march.channel), intercept = source.intercept(march.channel);
  Number *target = out + d * area + Index(h) * march.size[2] + w;

  Part part;
  part.place(source, thread, h, w, march.size[1] + KH - 1, march.size[2] + KW - 1);
  part.fetch(source, channel, source.looked_up(depths, d));
  const int used = outputs + KD - 1;
  int next = used > 1 ? source.looked_up(depths, d + 1) : -1;
  Number queue[KD][X] = {};
  for (int p = 0; p <= used; ++p) {
    const bool more = p < used;
    if (more) part.store(source, planes[p & 1], thread, fill, intercept);
    __syncthreads();
    if (p + 1 < used) {
      part.fetch(source, channel, next);
      if (p + 2 < used) next = source.looked_up(depths, d + p + 2);
    }
    if (!march.aligned && p >= KD) {  // what the last plane completed
      const Number *line = staged[(p - 1) & 1]->at;
      Number *done = opaque(target + (p - KD) * area);
#pragma unroll
      for (int i = 0; i < X; ++i) {
        const int item = thread + i * THREADS, y = item / WIDE, x = item % WIDE;
        if (h + y < march.size[1] && w + x < march.size[2]) done[y * march.size[2] + x] = line[item];
      }
    }
    if (!more) break;

#pragma unroll
    for (int j = 0; j < KD; ++j)
#pragma unroll
      for (int x = 0; x < X; ++x) queue[j][x] = j + 1 < KD ? queue[j + 1 < KD ? j + 1 : j][x] : Number(0);
    // queue[j] is of the output whose layer KD - 1 - j meets this plane.
    Number plane[KD][X] = {}, chain[KD][X] = {};
#pragma unroll
    for (int y = 0; y < KH; ++y) {
      Window<Number, X + KW - 1> window;
      window.load(planes[p & 1] + (ty + y) * (Part::pitch / X) + tx);
#pragma unroll
      for (int j = 0; j < KD; ++j) {
        Number *sums = CHAINED ? chain[j] : queue[j];
#pragma unroll
        for (int k = 0; k < KW; ++k)
#pragma unroll
          for (int x = 0; x < X; ++x)
            sums[x] = multiply_add(weights.at[((KD - 1 - j) * KH + y) * KW + k], window[x + k], sums[x]);
        if (CHAINED && ((y + 1) % (CHAINED ? CHAINED : 1) == 0 || y + 1 == KH)) {
#pragma unroll
          for (int x = 0; x < X; ++x) {
            plane[j][x] = y < CHAINED ? sums[x] : plane[j][x] + sums[x];
            sums[x] = 0;
            if (y + 1 == KH) queue[j][x] += plane[j][x];
          }
        }
      }
    }
    if (p >= KD - 1) {
      Vector<Number> result;
#pragma unroll
      for (int x = 0; x < X; ++x) result.at[x] = queue[0][x] + bias;
      if (!march.aligned)
        staged[p & 1][thread] = result;
      else if (h + ty < march.size[1] && w + tx * X < march.size[2])
        *reinterpret_cast<Vector<Number> *>(target + (p - KD + 1) * area + Index(ty) * march.size[2] + tx * X) =
            result;
    }
  }
}

// ---- along: passes with 1-D kernels --------------------------------------------------------------------------------

// size: outputs along D, H, W. lines: for how many lines a block of a pass along W is there; a multiple of 8.
struct Pass {
  int channels, size[3], lines, accumulate;
};

// Taps in a chain of a pass: three passes together stay below ROUNDINGS, as one of them does with few taps, or with a
// third of a chain and what is added then.
__host__ __device__ constexpr int linked(int taps) { return taps <= ROUNDINGS / 3 ? taps : ROUNDINGS / 3 - 2; }

// The products of a value with all taps through which it reaches so many neighbouring outputs: value is that of
// position i in their window. Every output takes its taps in order.
template <typename Number, int M, int K, int S> struct Sums {
  Number chains[M] = {}, totals[M] = {};

  __device__ __forceinline__ void add(const Weights<Number, K> &weights, int i, Number value) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
      const int k = i - m * S;
      if (k < 0 || k >= K) continue;
      chains[m] = multiply_add(weights.at[k], value, chains[m]);
      if (K > linked(K) && ((k + 1) % linked(K) == 0 || k + 1 == K)) add_chain(totals[m], chains[m]);
    }
  }

  __device__ __forceinline__ Number sum(int m) const { return K > linked(K) ? totals[m] : chains[m]; }
};

// Add to what is there, if that is asked for; the bias last.
template <typename Number>
__device__ __forceinline__ void deliver(Number *place, Number value, bool accumulate, const Number *bias,
                                        int channel) {
  if (accumulate) value += *place;
  *place = bias ? value + bias[channel] : value;
}

// Along D or H (AXIS 0 or 1). A block is 32 voxels along W, and along the axis M outputs for each of 8 rows of threads.
template <typename Stored, typename Number, int AXIS, int K, int S>
__global__ void __launch_bounds__(THREADS)
    along_lines(const Stored *__restrict__ values, const int *__restrict__ depths, const int *__restrict__ rows,
                const int *__restrict__ voxels, const Layout<Number> layout, const Pass pass,
                const Weights<Number, K> weights, const Number *__restrict__ bias, Number *out) {
  enum { M = 32 / sizeof(Number), LONG = 8 * M, USED = (LONG - 1) * S + K, OTHER = 1 - AXIS };
  enum { BATCH = 8 };  // rows that are on their way at once
  __shared__ Number tile[USED][32];
  const Source<Stored, Number> source = {values, depths, rows, voxels, layout};
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
  const int across = (pass.size[2] + 31) / 32, length = pass.size[AXIS], reach = (length - 1) * S + K;
  int block = blockIdx.x;
  const int w = block % across * 32 + lane;
  block /= across;
  const int parts = (length + LONG - 1) / LONG;
  // Neighbouring blocks share what they read: along W, then along the axis.
  const int first = block % parts * LONG;
  block /= parts;
  const int other = block % pass.size[OTHER], c = block / pass.size[OTHER];
  const bool there = w < pass.size[2];
  const Number fill = source.fill(c), intercept = source.intercept(c);
  const int x = there ? source.looked_up(voxels, w) : -1;
  const int fixed = source.looked_up(AXIS == 0 ? rows : depths, other);
  const int *table = AXIS == 0 ? depths : rows;
  const Index step = AXIS == 0 ? layout.depth : layout.row;
  const bool filled = (x | fixed) < 0;
  const Stored *column =
      opaque(source.channel(c) + (filled ? 0 : x * layout.voxel + fixed * (AXIS == 0 ? layout.row : layout.depth)));
  for (int i = row; i < USED; i += 8 * BATCH) {
    int places[BATCH];
    Stored held[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; ++j) {
      const int position = i + j * 8, padded = first * S + position;
      places[j] = position < USED && padded < reach && !filled ? source.looked_up(table, padded) : -1;
    }
#pragma unroll
    for (int j = 0; j < BATCH; ++j) {
      held[j] = Stored();
      if (places[j] >= 0) held[j] = column[places[j] * step];
    }
#pragma unroll
    for (int j = 0; j < BATCH; ++j) {
      const Number value = source.loaded(held + j, intercept);
      if (i + j * 8 < USED) tile[i + j * 8][lane] = places[j] < 0 ? fill : value;
    }
  }
  __syncthreads();
  Sums<Number, M, K, S> sums;
#pragma unroll
  for (int i = 0; i < (M - 1) * S + K; ++i) sums.add(weights, i, tile[row * M * S + i][lane]);
  if (!there) return;
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int position = first + row * M + m;
    if (position >= length) break;
    const Index line = AXIS == 0 ? (Index(c) * length + position) * pass.size[1] + other
                                 : (Index(c) * pass.size[0] + other) * length + position;
    deliver(out + line * pass.size[2] + w, sums.sum(m), pass.accumulate, bias, c);
  }
}

// Along W. A warp has a line of 32 vectors of outputs; a block goes through neighbouring lines, 8 at a time; the next
// are loaded meanwhile. Outputs are stored by way of shared memory, so that warps store whole lines.
template <typename Stored, typename Number, int K, int S>
__global__ void __launch_bounds__(THREADS)
    along_voxels(const Stored *__restrict__ values, const int *__restrict__ depths, const int *__restrict__ rows,
                 const int *__restrict__ voxels, const Layout<Number> layout, const Pass pass,
                 const Weights<Number, K> weights, const Number *__restrict__ bias, Number *out) {
  enum {
    X = Vector<Number>::width,
    WIDE = 32 * X,
    USED = (WIDE - 1) * S + K,
    VECTORS = (USED + X - 1) / X,
    LOADS = (USED + 31) / 32,
    WINDOW = ((X - 1) * S + K + X - 1) / X
  };
  __shared__ Vector<Number> tile[8][VECTORS], staged[8][32];
  const Source<Stored, Number> source = {values, depths, rows, voxels, layout};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int across = (pass.size[2] + WIDE - 1) / WIDE, reach = (pass.size[2] - 1) * S + K;
  const int w = int(blockIdx.x % across) * WIDE;
  const Index lines = Index(pass.channels) * pass.size[0] * pass.size[1];
  const Index begin = Index(blockIdx.x / across) * pass.lines;
  const Index end = begin + pass.lines < lines ? begin + pass.lines : lines;
  Index places[LOADS];
#pragma unroll
  for (int i = 0; i < LOADS; ++i) {
    const int position = lane + i * 32, padded = w * S + position;
    const int x = position < USED && padded < reach ? source.looked_up(voxels, padded) : -1;
    places[i] = x < 0 ? -1 : x * layout.voxel;
  }
  Stored held[LOADS];
  bool filled = true;
  int c = 0;
  // Begin to load a warp's line.
  auto fetch = [&](Index line) {
    filled = true;
    const Stored *start = values;
    if (line < end) {
      const int h = int(line % pass.size[1]);
      const Index plane = line / pass.size[1];
      c = int(plane / pass.size[0]);
      const int y = source.looked_up(rows, h), z = source.looked_up(depths, int(plane % pass.size[0]));
      filled = (y | z) < 0;
      start = source.channel(c) + (filled ? 0 : y * layout.row + z * layout.depth);
    }
    start = opaque(start);
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
      held[i] = Stored();
      if (places[i] >= 0 && !filled) held[i] = start[places[i]];
    }
  };
  fetch(begin + warp);
  for (Index line = begin + warp; line - warp < end; line += 8) {
    const int channel = c;
    Number *numbers = tile[warp]->at;
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
      const Number value = source.loaded(held + i, source.intercept(channel));
      if (lane + i * 32 < USED) numbers[lane + i * 32] = places[i] < 0 || filled ? source.fill(channel) : value;
    }
    __syncthreads();
    fetch(line + 8);
    Sums<Number, X, K, S> sums;
#pragma unroll
    for (int v = 0; v < WINDOW; ++v) {
      const Vector<Number> part = tile[warp][lane * S + v];
#pragma unroll
      for (int e = 0; e < X; ++e) sums.add(weights, v * X + e, part.at[e]);
    }
    Vector<Number> result;
#pragma unroll
    for (int x = 0; x < X; ++x) result.at[x] = sums.sum(x);
    staged[warp][lane] = result;
    __syncthreads();
    if (line < end) {
      Number *target = opaque(out + line * pass.size[2] + w);
      const Number *done = staged[warp]->at;
#pragma unroll
      for (int i = 0; i < X; ++i) {
        const int x = lane + i * 32;
        if (w + x < pass.size[2]) deliver(target + x, done[x], pass.accumulate, bias, channel);
      }
    }
  }
}

// ---- columns: neighbourhoods as a matrix ---------------------------------------------------------------------------

// out: (per_in * taps, count): for each tap of each channel from channel first on what it meets at outputs begin,
// begin + 1, ..., which are counted along W, then H, then D. Out may be narrower than Number.
template <typename Stored, typename Number, typename Out>
__global__ void __launch_bounds__(THREADS, 1)
    columns(const Stored *__restrict__ values, const int *__restrict__ depths, const int *__restrict__ rows,
            const int *__restrict__ voxels, const Layout<Number> layout, const Correlation problem, const int first,
            const Index begin, const Index count, Out *__restrict__ out) {
  const Source<Stored, Number> source = {values, depths, rows, voxels, layout};
  const Index column = Index(blockIdx.x) * THREADS + threadIdx.x;
  if (column >= count) return;
  Index rest = begin + column;
  const int w = int(rest % problem.size[2]) * problem.stride[2];
  rest /= problem.size[2];
  const int h = int(rest % problem.size[1]) * problem.stride[1], d = int(rest / problem.size[1]) * problem.stride[0];
  const int *kernel = problem.kernel;
  for (int layer = blockIdx.y; layer < problem.per_in * kernel[0]; layer += gridDim.y) {
    Out *target = out + Index(layer) * kernel[1] * kernel[2] * count + column;
    for (int y = 0; y < kernel[1]; ++y) {
      const typename Source<Stored, Number>::Line from =
          source.line(first + layer / kernel[0], d + layer % kernel[0] * problem.dilation[0],
                      h + y * problem.dilation[1]);
      for (int x = 0; x < kernel[2]; ++x, target += count) write(target, source.at(from, w + x * problem.dilation[2]));
    }
  }
}

// ---- channels: several input or output channels, small kernels -----------------------------------------------------

// per_in and per_out: channels of a group. chained: stages (planes of a channel) whose products are one chain.
struct Channels {
  int per_in, per_out, groups, depth, stride, dilation, size[3], chained, aligned;
};

// Where a block's outputs begin, and their part of a group's channels. Neighbouring blocks share what they read: first
// those of other channels.
template <int WIDE, int HIGH, int MANY> struct Corner {
  int part, group, first, d, h, w;

  __device__ __forceinline__ Corner(const Channels &problem, unsigned block) {
    const int parts = (problem.per_out + MANY - 1) / MANY;
    const int across = (problem.size[2] + WIDE - 1) / WIDE, down = (problem.size[1] + HIGH - 1) / HIGH;
    part = int(block % (parts * problem.groups));
    group = part / parts;
    first = part % parts * MANY;
    const int tile = int(block / (parts * problem.groups));
    w = tile % across * WIDE;
    h = tile / across % down * HIGH;
    d = tile / across / down;
  }
};

// A thread has neighbouring outputs along W of DEEP (4 or 8) output channels; a block 16 threads along W, 16 / G along H, and
// G threads for other channels. Its stages are the planes of all input channels, in order: plane z of channel c meets
// layer z of the kernels. weight: (groups, blocks of channels, per_in, depth, KH * KW, G * DEEP).
// A chain ends after so many stages, and within one whose plane is large.
template <typename Stored, typename Number, int KH, int KW, int SH, int SW, int DEEP, int G>
__global__ void __launch_bounds__(THREADS, SH * SW < 4 && KH * KW * sizeof(Number) <= 200 ? 2 : 1)
    channels(const Stored *__restrict__ values, const int *__restrict__ depths, const int *__restrict__ rows,
             const int *__restrict__ voxels, const Layout<Number> layout, const Channels problem,
             const Number *__restrict__ weight, const Number *__restrict__ bias, Number *__restrict__ out) {
  enum {
    X = Vector<Number>::width,
    WIDE = 16 * X,
    HIGH = 16 / G,
    TAPS = KH * KW * G * DEEP / X,  // vectors
    TAP_LOADS = (TAPS + THREADS - 1) / THREADS,
    ROWS = KH * KW <= CHAIN ? KH : CHAIN / KW,  // in a chain
    UNROLLED = KH * KW <= 9 ? KH : 1            // more, and the compiler would load too much too early
  };
  typedef Plane<Stored, Number, (HIGH - 1) * SH + KH, (WIDE - 1) * SW + KW> Part;
  __shared__ Vector<Number> planes[2][Part::items / X], taps[2][TAPS];
  const Source<Stored, Number> source = {values, depths, rows, voxels, layout};
  const int thread = threadIdx.x, tx = thread % 16, ty = thread / 16 % HIGH, g = thread / 16 / HIGH;
  const Corner<WIDE, HIGH, G * DEEP> corner(problem, blockIdx.x);
  const int stages = problem.per_in * problem.depth;
  const Vector<Number> *stage_taps =
      reinterpret_cast<const Vector<Number> *>(weight) + Index(corner.part) * stages * TAPS;

  Part part;
  part.place(source, thread, corner.h * SH, corner.w * SW, (problem.size[1] - 1) * SH + KH, (problem.size[2] - 1) * SW + KW);
  Vector<Number> held[TAP_LOADS];
  int c = corner.group * problem.per_in, z = 0;  // of the stage that is on its way
  auto fetch = [&]() {
    part.fetch(source, source.channel(c), source.looked_up(depths, corner.d * problem.stride + z * problem.dilation));
#pragma unroll
    for (int i = 0; i < TAP_LOADS; ++i)
      if (thread + i * THREADS < TAPS) held[i] = stage_taps[thread + i * THREADS];
  };
  fetch();
  Number totals[DEEP][X] = {}, chains[DEEP][X] = {};
  auto flush = [&]() {
#pragma unroll
    for (int r = 0; r < DEEP; ++r)
#pragma unroll
      for (int x = 0; x < X; ++x) add_chain(totals[r][x], chains[r][x]);
  };
  int chained = 0;
  for (int stage = 0; stage < stages; ++stage) {
    part.store(source, planes[stage & 1], thread, source.fill(c), source.intercept(c));
#pragma unroll
    for (int i = 0; i < TAP_LOADS; ++i)
      if (thread + i * THREADS < TAPS) taps[stage & 1][thread + i * THREADS] = held[i];
    __syncthreads();
    if (stage + 1 < stages) {
      if (++z == problem.depth) z = 0, ++c;
      stage_taps += TAPS;
      fetch();
    }
#pragma unroll(UNROLLED)
    for (int y = 0; y < KH; ++y) {
      Window<Number, (X - 1) * SW + KW> window;
      window.load(planes[stage & 1] + (ty * SH + y) * (Part::pitch / X) + tx * SW);
#pragma unroll
      for (int k = 0; k < KW; ++k) {
        Window<Number, DEEP> factors;
        factors.load(taps[stage & 1] + ((y * KW + k) * G + g) * (DEEP / X));
#pragma unroll
        for (int r = 0; r < DEEP; ++r)
#pragma unroll
          for (int x = 0; x < X; ++x) chains[r][x] = multiply_add(factors[r], window[x * SW + k], chains[r][x]);
      }
      if (ROWS < KH && ((y + 1) % ROWS == 0 || y + 1 == KH)) flush();
    }
    if (ROWS == KH && ++chained == problem.chained) chained = 0, flush();
  }
  flush();
  const Corner<WIDE, HIGH, G * DEEP> again(problem, opaque(blockIdx.x));
  const int h = again.h + ty, w = again.w + tx * X, first = again.first + g * DEEP;
  if (h >= problem.size[1]) return;
#pragma unroll
  for (int r = 0; r < DEEP; ++r) {
    if (first + r >= problem.per_out) break;
    const int channel = again.group * problem.per_out + first + r;
    const Number more = bias ? bias[channel] : Number(0);
    Number *target = opaque(
        out + ((Index(channel) * problem.size[0] + again.d) * problem.size[1] + h) * problem.size[2] + w);
    Vector<Number> result;
#pragma unroll
    for (int x = 0; x < X; ++x) result.at[x] = totals[r][x] + more;
    if (problem.aligned) {
      if (w < problem.size[2]) *reinterpret_cast<Vector<Number> *>(target) = result;
    } else {
#pragma unroll
      for (int x = 0; x < X; ++x)
        if (w + x < problem.size[2]) target[x] = result.at[x];
    }
  }
}

// ---- products: of spectra, summed over channels --------------------------------------------------------------------

template <typename Number> struct alignas(2 * sizeof(Number)) Complex {
  Number real, imaginary;
};

// frequencies: of a tile's spectrum.
struct Spectra {
  Index frequencies;
  int tiles, groups, per_in, per_out;
};

enum { TILED = 2, OUTPUTS = 4 };  // whose products a thread has, so that it loads each spectrum for several of them

// out: (tiles, groups * per_out, frequencies). tiles: (tiles, groups * per_in, frequencies). kernels: (groups * per_out,
// per_in, frequencies).
template <typename Number>
__global__ void __launch_bounds__(THREADS)
    products(const Complex<Number> *__restrict__ tiles, const Complex<Number> *__restrict__ kernels,
             const Spectra spectra, Complex<Number> *__restrict__ out) {
  const Index size = spectra.frequencies, f = Index(blockIdx.x) * THREADS + threadIdx.x;
  if (f >= size) return;
  const int shares = (spectra.per_out + OUTPUTS - 1) / OUTPUTS, group = blockIdx.y / shares;
  const int first = int(blockIdx.y) % shares * OUTPUTS;
  for (int tile = int(blockIdx.z) * TILED; tile < spectra.tiles; tile += gridDim.z * TILED) {
    Complex<Number> sums[TILED][OUTPUTS] = {};
    for (int c = 0; c < spectra.per_in; ++c) {
      Complex<Number> values[TILED];
#pragma unroll
      for (int t = 0; t < TILED; ++t) {
        const int there = tile + t < spectra.tiles ? tile + t : tile;
        values[t] = tiles[((Index(there) * spectra.groups + group) * spectra.per_in + c) * size + f];
      }
#pragma unroll
      for (int r = 0; r < OUTPUTS; ++r) {
        const int channel = group * spectra.per_out + (first + r < spectra.per_out ? first + r : first);
        const Complex<Number> factor = kernels[(Index(channel) * spectra.per_in + c) * size + f];
#pragma unroll
        for (int t = 0; t < TILED; ++t) {
          Complex<Number> &sum = sums[t][r];
          sum.real = multiply_add(factor.real, values[t].real, sum.real);
          sum.real = multiply_add(-factor.imaginary, values[t].imaginary, sum.real);
          sum.imaginary = multiply_add(factor.real, values[t].imaginary, sum.imaginary);
          sum.imaginary = multiply_add(factor.imaginary, values[t].real, sum.imaginary);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < TILED; ++t)
#pragma unroll
      for (int r = 0; r < OUTPUTS; ++r)
        if (tile + t < spectra.tiles && first + r < spectra.per_out)
          out[((Index(tile + t) * spectra.groups + group) * spectra.per_out + first + r) * size + f] = sums[t][r];
  }
}
