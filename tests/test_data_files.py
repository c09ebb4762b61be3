"""The user's own files: what is read from .npz, tables and image folders, and what is refused, in one sentence."""

import numpy as np
import pytest
import torchvision
from PIL import Image

from lrensemble.data import load_data
from lrensemble.data.files import read_path
from lrensemble.errors import DataError

X = np.random.default_rng(0).normal(size=(60, 3))
Y = np.tile(np.arange(3), 20)


def refused(source, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        load_data(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestNpz:
    def save(self, path, **arrays):
        np.savez_compressed(path / "own.npz", **arrays)
        return path / "own.npz"

    def test_one_set(self, tmp_path):
        path = self.save(tmp_path, x=X, y=Y, classes=np.array(["red", "green", "blue"]), note=np.array("anything"))
        splits = load_data(str(path))
        assert (splits.name, splits.class_names) == ("own", ("red", "green", "blue"))
        assert [len(part) for part in (splits.train, splits.val, splits.test)] == [36, 12, 12]

    @pytest.mark.parametrize("parts", [("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")])
    def test_given_parts(self, tmp_path, parts):
        arrays = {f"{axis}_{part}": values for part in parts for axis, values in (("x", X), ("y", Y))}
        splits = load_data(self.save(tmp_path, **arrays, class_names=np.array(["a", "b", "c"])))
        for part in parts[1:]:
            np.testing.assert_array_equal(getattr(splits, part).y, Y)
        assert len(splits.train) == 60 - sum(len(getattr(splits, p)) for p in ("val", "test") if p not in parts)

    def test_the_path_is_not_in_the_fingerprint(self, tmp_path):
        one = self.save(tmp_path, x=X, y=Y)
        other = one.rename(tmp_path / "other.npz")
        assert load_data(other).fingerprint == load_data((X, Y)).fingerprint

    def test_missing(self, tmp_path):
        refused(tmp_path / "none.npz", "expected a data file or folder at .*none.npz, found nothing")
        refused(str(tmp_path / "none"), "found nothing there: check the path")

    @pytest.mark.parametrize("kept", [0, 10, 200, -30])
    def test_truncated(self, tmp_path, kept):
        path = self.save(tmp_path, x=X, y=Y)
        path.write_bytes(path.read_bytes()[:kept])
        assert refused(path, "expected an .npz archive, got a truncated or other file").startswith(str(path))

    def test_altered(self, tmp_path):
        path = self.save(tmp_path, x=X, y=Y)
        content = bytearray(path.read_bytes())
        content[300:340] = b"\0" * 40
        path.write_bytes(content)
        refused(path, "expected a readable .npz archive, got a damaged one at 'x'")

    def test_pickled_objects_are_not_loaded(self, tmp_path):
        path = self.save(tmp_path, x=X, y=np.array([object] * 60))
        refused(path, "expected plain arrays, got Python objects under 'y'")

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": X}, "expected arrays named 'x' and 'y', got x: name them so"),
            ({"images": X, "labels": Y}, "named 'x' and 'y', or 'x_train' and 'y_train', got images, labels"),
            ({"x_test": X, "y_test": Y}, "named 'x' and 'y', or 'x_train' and 'y_train'"),
            ({"x_train": X, "y_train": Y, "x_tset": X, "y_tset": Y}, "parts train, val and test, got 'x_tset'"),
            ({"x": X, "y": Y, "x_test": X}, "expected arrays named 'x_test' and 'y_test'"),
            ({"x": X, "y": Y, "x_train": X, "y_train": Y}, "either x and y or x_train and y_train, got both"),
        ],
    )
    def test_names(self, tmp_path, arrays, message):
        refused(self.save(tmp_path, **arrays), message)


class TestTables:
    def write(self, path, text, name="own.csv"):
        (path / name).write_text(text, encoding="utf-8")
        return path / name

    def rows(self, delimiter=","):
        return "\n".join(delimiter.join([*(repr(float(v)) for v in x), f"k{y}"]) for x, y in zip(X, Y, strict=True))

    @pytest.mark.parametrize(("name", "delimiter"), [("own.csv", ","), ("own.tsv", "\t"), ("OWN.CSV", ",")])
    def test_last_column_is_the_class(self, tmp_path, name, delimiter):
        splits = load_data(self.write(tmp_path, delimiter.join("abcd") + "\n" + self.rows(delimiter) + "\n\n", name))
        expected = load_data({"x": X, "y": Y, "classes": ["k0", "k1", "k2"]})
        assert splits.fingerprint == expected.fingerprint

    def test_column_named_label_is_the_class(self, tmp_path):
        text = "\ufeffLabel,a,b,c\n" + "\n".join(
            f"{y},{a!r},{b!r},{c!r}" for (a, b, c), y in zip(X.tolist(), Y, strict=True)
        )
        splits = load_data(self.write(tmp_path, text))
        assert splits.class_names == ("0", "1", "2")
        assert splits.fingerprint == load_data((X, Y)).fingerprint

    def test_codes_stay_names(self, tmp_path):
        body = "".join(f"{i},{'007' if i % 2 else '7'}\n" for i in range(20))
        assert load_data(self.write(tmp_path, "a,code\n" + body)).class_names == ("007", "7")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "expected a header and rows of two columns or more, with commas between them, got 0 rows"),
            ("a,b\n", "expected a header and rows"),
            ("a\n1\n", "expected a header and rows of two columns"),
            ("a;b\n1;2\n", "with commas between them, got 2 rows of 1"),
            ("label,a,Label\n0,1,2\n", "expected one column named label, got 2"),
            ("a,label\n1,0\n2, \n", "expected a label in row 3, column 'label', got none"),
            ("1,2\n3,4\n", "expected column names in the first row"),
            ("a,label\n1,0\n2\n", "expected 2 cells in row 3 as in the header, got 1"),
            ("a,b,label\n1,2,0\n1,two,1\n", "expected a number in row 3, column 'b', got 'two'"),
            ("label,b,c\n0,1,2\n1,,3\n", "expected a number in row 3, column 'b', got ''"),
            ("a,label\n" + "nan,0\n1,1\n" * 9, "expected finite train samples, got nan in sample 0"),
        ],
    )
    def test_what_is_no_table(self, tmp_path, text, message):
        path = self.write(tmp_path, text)
        assert refused(path, message).startswith(f"{path}: ")

    def test_other_encodings(self, tmp_path):
        (tmp_path / "own.csv").write_bytes("größe,label\n1,ä\n".encode("latin-1"))
        refused(tmp_path / "own.csv", "expected a table as UTF-8 text")

    def test_other_files(self, tmp_path):
        refused(
            self.write(tmp_path, "x", "own.xlsx"),
            "expected a .npz, .csv or .tsv file or a folder of images, got a '.xlsx'",
        )


def write_images(folder, classes=("ant", "bee"), copies=10, size=(6, 5), mode="RGB", suffix="png"):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(copies):
            shape = (size[1], size[0], 3)
            values = np.random.default_rng(100 * number + i).integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(values).convert(mode).save(folder / name / f"{i:03}.{suffix}")
    return folder


class TestImageFolders:
    def test_one_tree(self, tmp_path):
        write_images(tmp_path)
        (tmp_path / ".hidden").mkdir()
        (tmp_path / "ant" / "._000.png").write_bytes(b"left by another program")
        (tmp_path / "ant" / ".thumbnails").mkdir()
        (tmp_path / "ant" / ".thumbnails" / "000.png").write_bytes(b"left by another program")
        (tmp_path / "bee" / "folder.png").mkdir()
        (tmp_path / "ant" / "notes.txt").write_text("not an image")
        splits = load_data(tmp_path)
        assert (splits.input_shape, splits.class_names) == ((3, 5, 6), ("ant", "bee"))
        assert [len(part) for part in (splits.train, splits.val, splits.test)] == [12, 4, 4]

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_as_torchvision_reads_it(self, tmp_path, mode):
        write_images(tmp_path, ("b", "a", "c"), mode=mode)
        x, y = read_path(tmp_path).parts["train"]
        folder = torchvision.datasets.ImageFolder(tmp_path)
        np.testing.assert_array_equal(y, folder.targets)
        for found, (image, _) in zip(x, folder, strict=True):
            np.testing.assert_array_equal(found, np.asarray(image.convert(mode)).reshape(found.shape))

    def test_given_parts(self, tmp_path):
        for part, copies in (("train", 10), ("val", 3), ("test", 2)):
            write_images(tmp_path / part, copies=copies)
        splits = load_data(str(tmp_path))
        assert [len(part) for part in (splits.train, splits.val, splits.test)] == [20, 6, 4]
        np.testing.assert_array_equal(splits.test.y, [0, 0, 1, 1])

    def test_grey_and_colour_mixed(self, tmp_path):
        write_images(tmp_path, ("ant",), mode="L")
        assert read_path(write_images(tmp_path, ("bee",), mode="L")).parts["train"][0].shape == (20, 5, 6, 1)
        write_images(tmp_path, ("cat",), mode="RGBA")
        x, _ = read_path(tmp_path).parts["train"]
        assert x.shape == (30, 5, 6, 3)
        assert (x[:20, ..., :1] == x[:20]).all()

    def test_unequal_sizes(self, tmp_path):
        write_images(tmp_path, ("ant",))
        write_images(tmp_path, ("bee",), size=(7, 5))
        refused(tmp_path, r"bee.000.png: expected 6×5 pixels as in 000.png, got 7×5: .* pass resize=\(height, width\)")
        assert load_data(tmp_path, resize=8).input_shape == (3, 8, 8)
        assert load_data(tmp_path, resize=(4, 9)).input_shape == (3, 4, 9)

    @pytest.mark.parametrize("resize", [0, -3, 2.5, (3,), (3, 4, 5), "8"])
    def test_resize_is_checked(self, tmp_path, resize):
        refused(write_images(tmp_path), "expected resize as a side or", resize=resize)

    def test_unreadable(self, tmp_path):
        write_images(tmp_path, suffix="jpg", size=(40, 40))
        broken = tmp_path / "bee" / "004.jpg"
        broken.write_bytes(broken.read_bytes()[:-300])
        assert str(broken) in refused(tmp_path, "expected an image, but it cannot be read")
        broken.write_text("no image at all")
        assert str(broken) in refused(tmp_path, "expected an image, but it cannot be read")

    def test_sixteen_bits(self, tmp_path):
        write_images(tmp_path)
        Image.fromarray(np.zeros((5, 6), dtype=np.uint16)).save(tmp_path / "ant" / "000.png")
        refused(tmp_path, "expected 8-bit images, got mode I;16")

    def test_no_images(self, tmp_path):
        refused(tmp_path, "expected images as <class>/<image> or train/<class>/<image>, found none")
        (tmp_path / "ant").mkdir()
        refused(tmp_path, "expected images of class 'ant', found none")

    def test_a_class_that_train_lacks(self, tmp_path):
        write_images(tmp_path / "train")
        write_images(tmp_path / "test", ("ant", "cat"))
        refused(tmp_path, "expected one of the classes of the training set, got 'cat'")

    def test_one_class(self, tmp_path):
        refused(write_images(tmp_path, ("ant",)), "two classes or more, got 1")
