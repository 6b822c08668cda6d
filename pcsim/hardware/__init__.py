"""Machines and their prices, counted work and its bill, mappings, how long things take."""
