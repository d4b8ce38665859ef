"""What requests and answers hold, and the OpenAPI document that is made of it."""
