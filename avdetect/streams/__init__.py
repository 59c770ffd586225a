"""The three streams. Tensors in, logits (or embeddings) out; never files. Needs torch (the extra `train`)."""
