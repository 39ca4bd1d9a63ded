"""Where bytes come from: local files and hub repositories, without judging the bytes."""
