"""R-MUSE: the method and the hidden states it steers."""
