"""RefineDet: the network, its data and what surrounds it."""
