"""AUTOMATIC1111's stable-diffusion-webui: its /sdapi/v1."""
