"""MMUnlearner (arXiv 2502.11051): method, saliency masks, released loop."""
