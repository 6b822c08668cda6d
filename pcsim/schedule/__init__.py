"""When layers act: operations, orders, and the programs that orders are written out into."""
