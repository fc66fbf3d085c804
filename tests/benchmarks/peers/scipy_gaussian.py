"""IN OUT: a Gaussian of sigma 2 voxels with nibabel and SciPy."""

import sys

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter

source, target = sys.argv[1:]
image = nibabel.load(source)
data = np.asarray(image.dataobj).T  # SciPy is faster on C order
smooth = gaussian_filter(data, 2, mode="constant")
nibabel.save(nibabel.Nifti1Image(smooth.T, image.affine, image.header), target)
