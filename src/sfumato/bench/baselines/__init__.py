"""What step-level batching is held against on a real model: diffusers' own pipeline, and the network alone."""
