"""A model in the forms that run without this library: ONNX, torch.export, safetensors."""
