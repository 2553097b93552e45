"""The middle floor: from a data set and the stages of a cell to its result on disk."""
