"""What the data and the machine are like, before a plan is made of them."""
