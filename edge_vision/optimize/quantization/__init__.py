"""Post-training quantization: ranges, weight rounding, sensitivity, mixed precision."""
