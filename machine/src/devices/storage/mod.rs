//! Storage controllers: IDE, ATAPI, floppy.
