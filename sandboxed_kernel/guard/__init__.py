"""The third trusted process: it reads the TLS greetings of connections that the broker has made; bytes it passes on."""
