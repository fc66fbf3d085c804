"""IN OUT KERNEL.npy: a dense kernel with nibabel and PyTorch."""

import sys

import nibabel
import numpy as np
import torch

source, target, kernel = sys.argv[1:]
torch.set_num_threads(2)
image = nibabel.load(source)
data = torch.from_numpy(image.get_fdata(dtype=np.float32).T)
weight = torch.from_numpy(np.load(kernel))
with torch.no_grad():
    result = torch.nn.functional.conv3d(data[None, None], weight[None, None], padding="same")[0, 0]
nibabel.save(nibabel.Nifti1Image(result.numpy().T, image.affine, image.header), target)
