"""How the bundled model is made: pictures of free licence to ONNX files, in resumable stages (training/README.md)."""
