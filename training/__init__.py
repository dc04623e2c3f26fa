"""How the bundled model was made: from pictures of free licence to ONNX files, in resumable stages (training/README.md)."""
