"""What comes from outside and what goes to the disk: files, JSON, addresses, servers, terminals."""
