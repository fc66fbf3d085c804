"""Conv3d engines."""
