"""IN OUT KERNEL.npy: a dense kernel with nibabel and SciPy."""

import sys

import nibabel
import numpy as np
from scipy.ndimage import correlate

source, target, kernel = sys.argv[1:]
image = nibabel.load(source)
data = np.asarray(image.dataobj).T  # SciPy is faster on C order
result = correlate(data, np.load(kernel), mode="constant")
nibabel.save(nibabel.Nifti1Image(result.T, image.affine, image.header), target)
