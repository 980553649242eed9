"""What measures and tries an exchange; none of it is needed to run one."""
