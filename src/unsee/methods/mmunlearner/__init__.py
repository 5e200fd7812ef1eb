"""MMUnlearner: the method, its saliency masks and the released loop."""
