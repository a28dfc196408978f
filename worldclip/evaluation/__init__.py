"""How good a model is, in every language: metrics on embeddings, and the tasks that are made of them."""
