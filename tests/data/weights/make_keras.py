"""Make keras*: run in this folder where Keras 3 is installed."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers


def main():
    inner = keras.Sequential([layers.Input((4, 6, 8, 3)), layers.Conv3D(2, 2, name="deep")], name="block")
    given = layers.Input((6, 7, 8, 2))
    values = inner(layers.Conv3D(3, (3, 2, 1), name="enc")(given))
    values = layers.Conv3D(3, 1, use_bias=False, name="conv3d")(values)
    model = keras.Model(given, layers.Conv3DTranspose(4, 2, name="up")(values))
    model.set_weights([np.arange(w.size, dtype="f4").reshape(w.shape) / 8 for w in model.get_weights()])
    model.save("keras3.keras")
    model.save_weights("keras3.weights.h5")
    model.save("keras.h5")


if __name__ == "__main__":
    main()
