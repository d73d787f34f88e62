"""Makes the fixtures of `rnn-train/src/data/npy.rs`: run it with NumPy in this folder."""
import numpy as np

numbers = np.array([[0, 1, 2], [3, 4, 100]])
for t in "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8".split():
    for order, mark in ("<", "le"), (">", "be"):
        np.save(f"{t}-{mark}.npy", (numbers / 4 if t[0] == "f" else numbers).astype(order + t))
signed = -numbers
for t in "i1 i2 i4 i8".split():
    np.save(f"{t}-negative.npy", signed.astype(t))
np.save("u8-large.npy", np.array([1, 2**63], dtype="u8"))
np.save("bool.npy", np.array([True, False, True]))
np.save("bytes.npy", np.array([b"a", b"", b"b\0c", b"long"]))
for order, mark in ("<", "le"), (">", "be"):
    np.save(f"text-{mark}.npy", np.array(["née", "", "a\0b", "😀"], dtype=order + "U3"))
np.save("fortran.npy", np.asfortranarray(np.arange(24, dtype="i4").reshape(2, 3, 4)))
np.save("fortran-bytes.npy", np.asfortranarray(np.array([[b"a", b"bc"], [b"", b"d"]])))
np.save("scalar.npy", np.float64(2.5))
np.save("empty.npy", np.zeros((0, 3), "f4"))
np.save("complex.npy", np.array([1j]))
np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
np.save("records.npy", np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]))
np.save("date.npy", np.array(["2000-01-01"], dtype="M8[D]"))
np.save("time.npy", np.array([1], dtype="m8[s]"))
np.save("long-double.npy", np.array([1], dtype="f16"))
for version in (2, 0), (3, 0):
    with open(f"version-{version[0]}.npy", "wb") as file:
        np.lib.format.write_array(file, np.array([1.5, -2.0], dtype="f4"), version=version)
arrays = {"x": numbers.astype("f4"), "b/a": np.array([1, -1]), "names": np.array(["é", "yz"])}
np.savez("stored.npz", **arrays)
np.savez_compressed("deflated.npz", zeros=np.zeros((50, 50)), **arrays)
