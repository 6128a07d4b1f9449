"""Attribution classes in the style of Captum: the contribution of every neuron of one layer or of many."""
