"""The check on a machine with an NVIDIA GPU: real lmdeploy, a checkpoint of the real shape."""
