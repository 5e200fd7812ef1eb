"""Other engines that answer in place of transformers, one file each, behind the function that `unsee.generation` has."""
