"""Any diffusers folder with torch, on CPU or CUDA (extra `sfumato[diffusers]`): one adapter a family."""
