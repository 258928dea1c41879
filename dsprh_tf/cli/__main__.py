"""`python -m dsprh_tf.cli PROGRAM ...` is `dsprh PROGRAM ...`."""

from dsprh_tf.cli.program import main

if __name__ == "__main__":
    main()
