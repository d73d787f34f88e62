"""What the recurrent networks of TensorFlow 1.x compute for small random
models. README.md in the folder above describes the files."""
