"""Export of trained models to ONNX, torch.export, safetensors and transformers."""
