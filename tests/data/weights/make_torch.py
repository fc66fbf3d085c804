"""Make torch*.pt: run in this folder where PyTorch is installed."""

from __future__ import annotations

import torch


def counted(layer):
    for p in layer.parameters():
        p.data = torch.arange(p.numel(), dtype=torch.float32).reshape(p.shape) / 8
    return layer


def main():
    model = torch.nn.Module()
    model.enc = torch.nn.Sequential(counted(torch.nn.Conv3d(2, 4, (3, 2, 1))))
    model.up = counted(torch.nn.ConvTranspose3d(4, 2, 2))
    model.flat = counted(torch.nn.Conv2d(2, 4, 3))
    state = model.state_dict()
    torch.save({"state_dict": state, "epoch": 3, "name": "unet"}, "torch.pt")
    torch.save(state, "torch_legacy.pth", _use_new_zipfile_serialization=False)
    torch.serialization.location_tag = lambda storage: "cuda:1"  # noqa: ARG005  # as a machine with two GPUs would
    torch.save({key: value.to(torch.bfloat16) for key, value in state.items()}, "torch_cuda_bfloat16.pt")


if __name__ == "__main__":
    main()
