"""IN OUT: a Gaussian of sigma 2 voxels with SimpleITK."""

import sys

import SimpleITK

source, target = sys.argv[1:]
SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(2)
image = SimpleITK.ReadImage(source)
SimpleITK.WriteImage(SimpleITK.SmoothingRecursiveGaussian(image, 2.0), target)
