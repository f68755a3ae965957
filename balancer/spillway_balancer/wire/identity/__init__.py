"""Who a balancer is to a cloud: what is sent, and what comes back, until an account has something to show.

No I/O is here.
"""
