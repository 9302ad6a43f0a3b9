"""Ways to carry a reference's motion over to new captions."""
