"""Names of folders that would be read as addresses."""

import pytest

from modeling_cnn10bert.errors import RetrievalError
from modeling_cnn10bert.files import ADDRESS, check_local_folder


@pytest.mark.parametrize("name", ["a::b", "a::b/c", "/x/a::b", "s3://bucket/a", "file:///a"])
def test_a_name_that_is_read_as_an_address_is_refused(name):
    with pytest.raises(ValueError, match=f"^OUT {name}: found '::?/?/?' in the name of a folder.* another name$"):
        check_local_folder(name, "OUT")


@pytest.mark.parametrize("name", ["a:b", "data/clotho", "org/clotho", "/x/12:30:00", "C:/x", "a: :b"])
def test_any_other_name_is_a_folder(name):
    check_local_folder(name, "OUT")


def test_the_error_is_of_the_kind_that_is_asked_for():
    with pytest.raises(RetrievalError, match="^--index s3://a"):
        check_local_folder("s3://a", "--index", RetrievalError)
    check_local_folder("a::b", "--index", RetrievalError, marks=(ADDRESS,))
