"""People of the lab in the English of a pretrained language model: `lab-smol`."""
