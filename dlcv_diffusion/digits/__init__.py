"""Problem 1: the 20 classes MNIST-M and SVHN (or street digits), from the data to the folder that is handed in."""
