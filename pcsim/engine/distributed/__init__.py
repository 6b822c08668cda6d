"""Layers in processes that share no memory and exchange the messages of the program."""
