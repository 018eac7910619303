"""The methods, inference and training. Knows torch; knows no asyncio, codec or network."""
