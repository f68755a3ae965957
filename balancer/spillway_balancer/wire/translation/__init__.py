"""Between the APIs: what a client asks in one and a provider answers in another."""
