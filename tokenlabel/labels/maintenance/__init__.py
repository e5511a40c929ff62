"""Operations on whole label stores: import, merge, count, verify."""
