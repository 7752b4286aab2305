"""The scan worker: the host's nmap on declared targets, chunk by chunk, its answers judged and stored."""
