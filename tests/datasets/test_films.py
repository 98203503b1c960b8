"""Films in every form: what was written is read back, what is broken is named, what is private is not seen."""

import random
import sys
import tracemalloc
import warnings

import av
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from sa2va_lab.datasets import open_dataset
from sa2va_lab.datasets.films import open_film, open_films
from sa2va_lab.errors import LabError
from sa2va_lab.files import find_film
from sa2va_lab.sa2va.processing import read_image

COUNT, SIZE = 12, (18, 22)
PLANTED = ("INVENTED^PLANTED", "NOTREAL-0042", "PLANTED-STUDY", "19990909")


def draw(count=COUNT, size=SIZE, top=255):
    """Grey frames (count, H, W) of which no two are equal: a bright square that moves over a slope."""
    frames = np.zeros((count, *size), np.uint16)
    frames += np.linspace(0, top // 2, size[1]).astype(np.uint16)
    for number, frame in enumerate(frames):
        frame[2:8, number % (size[1] - 4) :][:, :4] = top - number
    return frames.astype(np.uint8 if top < 256 else np.uint16)


def write_dicom(path, frames, *, planted=PLANTED, encoded=None, syntax=ExplicitVRLittleEndian, **tags):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.12.1", generate_uid()
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.PatientName, made.PatientID, made.StudyDescription, made.PatientBirthDate = planted
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.Modality, made.InstitutionName, made.SeriesDescription = "XA", planted[2], planted[0]
    bits = 8 if frames.dtype == np.uint8 else 16
    made.NumberOfFrames, made.Rows, made.Columns = len(frames), *frames.shape[1:3]
    made.SamplesPerPixel, made.PhotometricInterpretation = (3, "RGB") if frames.ndim == 4 else (1, "MONOCHROME2")
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation, made.PlanarConfiguration = 0, 0
    made.PixelData = frames.tobytes() if encoded is None else encoded
    for name, value in tags.items():
        setattr(made, name, value)
    made.save_as(path, enforce_file_format=True)
    return path


def write_video(path, frames, codec, pixels, options=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.stack([frame] * 3, -1), "rgb24")))
        container.mux(stream.encode())
    return path


def write_folder(path, frames):
    path.mkdir()
    for number, frame in enumerate(frames, 1):  # F10 stands before F2 in the alphabet
        Image.fromarray(frame).save(path / f"NOTREAL-0042_F{number}.png")
    return path


def write_pages(path, frames, **how):
    first, *rest = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=rest, **how)
    return path


FORMS = {
    "folder": lambda p, f: write_folder(p / "film", f),
    "gif": lambda p, f: write_pages(p / "a.gif", f, duration=100),
    "tiff": lambda p, f: write_pages(p / "a.tif", f),
    "packed tiff": lambda p, f: write_pages(p / "a.tiff", f, compression="tiff_lzw"),
    "apng": lambda p, f: write_pages(p / "a.png", f, duration=100),
    "dicom": lambda p, f: write_dicom(p / "a.dcm", f),
    "bare dicom": lambda p, f: write_dicom(p / "IM0001", f),
    "ffv1 in avi": lambda p, f: write_video(p / "a.avi", f, "ffv1", "bgr0"),
    "png in mov": lambda p, f: write_video(p / "a.mov", f, "png", "rgb24"),
}
LOSSY = {
    "h264 in mp4": lambda p, f: write_video(p / "a.mp4", f, "libx264", "yuv444p", {"bf": "3", "g": "6"}),
    "mjpeg in avi": lambda p, f: write_video(p / "a.avi", f, "mjpeg", "yuvj444p"),
}


def pixels(film):
    return [None if frame.image is None else np.asarray(read_image(frame.image)) for frame in film]


@pytest.mark.parametrize("form", [*FORMS, *LOSSY])
def test_a_film_reads_back_as_it_was_written(tmp_path, form):
    frames = draw()
    film = open_film((FORMS | LOSSY)[form](tmp_path, frames))
    assert (len(film), film.places()[0].id, film.places()[-1].id) == (
        COUNT,
        f"{film.path.stem}-F001",
        f"{film.path.stem}-F012",
    )
    assert bool(find_film(film.path)) == (form != "folder")
    for _ in range(2):  # as often as one likes
        read = pixels(film)
        assert len(read) == COUNT
        for image, frame in zip(read, frames, strict=True):
            apart = np.abs(image.astype(int) - frame[..., None])
            assert apart.max() == 0 if form in FORMS else apart.mean() < 10
    assert not [defect for defect in film.defects if defect.kind != "burnt_in_text"]
    assert "NOTREAL" not in film.reason + repr(film)


def test_rates_are_known(tmp_path):
    assert open_film(FORMS["gif"](tmp_path, draw())).rate == pytest.approx(10)
    assert open_film(LOSSY["h264 in mp4"](tmp_path, draw())).rate == pytest.approx(10)
    assert open_film(write_dicom(tmp_path / "a.dcm", draw(), CineRate=15)).rate == 15
    assert open_film(write_dicom(tmp_path / "a.dcm", draw(), FrameTime=40)).rate == pytest.approx(25)
    assert open_film(FORMS["tiff"](tmp_path, draw())).rate is None


def window(frames, centre, width):
    """DICOM PS3.3 C.11.2.1.2.1, written out for 0..255."""
    shown = ((frames - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.clip(shown, 0, 255).round()


def test_dicoms_are_shown_as_on_a_monitor(tmp_path):
    path, deep = tmp_path / "a.dcm", draw(top=4000)
    shown = [image[..., 0] for image in pixels(open_film(write_dicom(path, deep, WindowCenter=1000, WindowWidth=800)))]
    assert np.abs(np.array(shown) - window(deep.astype(float), 1000, 800)).max() <= 1
    assert 0 in shown[0]
    assert 255 in shown[0]
    tags = {"WindowCenter": [1000, 9], "WindowWidth": [800, 9], "BitsStored": 12, "HighBit": 11}
    assert open_film(path).reason == "DICOM of 12 frames, 16 bits, MONOCHROME2, by its window"
    inverted = pixels(open_film(write_dicom(path, deep, PhotometricInterpretation="MONOCHROME1", **tags)))
    assert all((255 - one[..., 0] == other).all() for one, other in zip(inverted, shown, strict=True))
    slope = {"RescaleSlope": 2, "RescaleIntercept": -50, "WindowCenter": 1950, "WindowWidth": 1600}
    rescaled = pixels(open_film(write_dicom(path, deep, **slope)))
    assert np.abs(np.array(rescaled)[..., 0] - window(2.0 * deep - 50, 1950, 1600)).max() <= 1
    groups = []  # an enhanced one says it in its functional groups
    for number in range(COUNT):
        group, told = Dataset(), Dataset()
        told.WindowCenter, told.WindowWidth = 1000 + 100 * number, 800
        group.FrameVOILUTSequence = [told]
        groups.append(group)
    enhanced = pixels(open_film(write_dicom(path, deep, PerFrameFunctionalGroupsSequence=groups)))
    for number, image in enumerate(enhanced):
        assert np.abs(image[..., 0] - window(deep[number].astype(float), 1000 + 100 * number, 800)).max() <= 1
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4001, 0, 8], [value * 255 // 4000 for value in range(4001)]
    table["LUTData"].VR, table["LUTDescriptor"].VR = "US", "US"
    looked_up = pixels(open_film(write_dicom(path, deep, VOILUTSequence=[table])))
    assert (np.array(looked_up)[..., 0] == deep.astype(int) * 255 // 4000).all()


def test_without_a_window_a_dicom_does_not_flicker(tmp_path):
    deep = draw(top=4000)
    deep[3] //= 2
    read = np.array(pixels(open_film(write_dicom(tmp_path / "a.dcm", deep))))[..., 0]
    assert (read == (deep / deep.max() * 255).round()).all()


def test_coloured_and_packed_dicoms(tmp_path):
    frames = draw()
    colours = np.stack([frames, frames // 2, frames // 3], -1)
    read = pixels(open_film(write_dicom(tmp_path / "a.dcm", colours)))
    assert all((one == other).all() for one, other in zip(read, colours, strict=True))
    made = pydicom.dcmread(write_dicom(tmp_path / "b.dcm", frames))
    made.compress(RLELossless)
    made.save_as(tmp_path / "b.dcm")
    read = pixels(open_film(tmp_path / "b.dcm"))
    assert all((one[..., 0] == other).all() for one, other in zip(read, frames, strict=True))


def test_burnt_in_text_is_suspected_from_the_tag(tmp_path):
    def defects(**tags):
        return [(one.kind, one.text) for one in open_film(write_dicom(tmp_path / "a.dcm", draw(), **tags)).defects]

    [(kind, perhaps)] = defects()
    assert kind == "burnt_in_text"
    assert "does not say that no text" in perhaps
    [(kind, sure)] = defects(BurnedInAnnotation="YES", Modality="CT")
    assert kind == "burnt_in_text"
    assert "says that text is burnt" in sure
    assert defects(BurnedInAnnotation="NO") == defects(Modality="CT") == []


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"syntax": DeflatedExplicitVRLittleEndian}, "a way that is not read"),
        ({"syntax": JPEGLosslessSV1, "encoded": b"\xfe\xff\x00\xe0" + b"\0" * 4}, r"JPEG Lossless.*pip install"),
        ({"syntax": MPEG4HP41, "encoded": b"\xfe\xff\x00\xe0" + b"\0" * 4}, "a way that is not read"),
        ({"NumberOfFrames": 10**6}, "holds 1,000,000 frames; expected 1 to 100,000"),
        ({"Rows": 60_000, "Columns": 60_000}, "3,600,000,000 pixels a frame"),
        ({"BitsAllocated": 1, "BitsStored": 1}, "1 bits a pixel"),
        ({"PhotometricInterpretation": PLANTED[0]}, "expected 8 to 16 of grey, RGB or YBR"),
    ],
)
def test_dicoms_that_are_refused(tmp_path, tags, said):
    frames = draw(2)
    encoded = tags.get("encoded")
    if encoded:
        tags = tags | {"encoded": pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(16)] * 2)}
    path = write_dicom(tmp_path / "a.dcm", frames, **tags)
    with pytest.raises(LabError, match=said) as refused:
        assert pixels(open_film(path))
    assert not any(word in str(refused.value) for word in PLANTED)


def test_an_error_quotes_no_tag(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", draw(2), FrameTime="4242")
    path.write_bytes(path.read_bytes().replace(b"4242", b"Mr X"))
    with pytest.raises(LabError, match="no DICOM with pictures") as refused:
        open_film(path)
    assert "Mr X" not in str(refused.value)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_a_broken_frame_is_named_and_the_film_goes_on(tmp_path):
    frames = draw()
    film = open_film(write_folder(tmp_path / "film", frames))
    broken = tmp_path / "film" / "NOTREAL-0042_F5.png"
    broken.write_bytes(broken.read_bytes()[:60])
    read = pixels(film)
    assert [number for number, image in enumerate(read, 1) if image is None] == [5]
    assert (read[11][..., 0] == frames[11]).all()
    [defect] = film.defects
    assert defect.kind == "unreadable_image"
    assert defect.text.startswith("frame 5 of 12 cannot be read")
    assert "NOTREAL" not in defect.text


@pytest.mark.parametrize("form", ["tiff", "gif", "dicom", "ffv1 in avi", "packed tiff"])
def test_what_was_cut_off_is_named(tmp_path, form):
    frames = draw(size=(96, 128))
    film = open_film(path := FORMS[form](tmp_path, frames))
    cut(path, 0.7)
    read = pixels(film)  # it was whole when it was opened
    assert len(read) == COUNT
    there = [image is not None for image in read]
    assert there[0]
    assert not there[-1]
    assert all((image[..., 0] == frame).all() for image, frame in zip(read, frames, strict=True) if image is not None)
    assert len(film.defects) - (form == "dicom") == there.count(False)


def test_a_damaged_packet_costs_its_frames_only(tmp_path):
    frames = draw(20, (48, 64))
    path = write_video(tmp_path / "a.mp4", frames, "libx264", "yuv420p", {"g": "5"})
    whole, content = pixels(open_film(path)), bytearray(path.read_bytes())
    at = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 3
    content[at : at + 60] = np.random.default_rng(0).integers(0, 256, 60, np.uint8).tobytes()
    path.write_bytes(content)
    film = open_film(path)
    read = pixels(film)
    lost = [number for number, image in enumerate(read) if image is None]
    assert 0 < len(lost) < 15
    assert len(film.defects) == len(lost)
    assert all((now == before).all() for now, before in zip(read, whole, strict=True) if now is not None)


@pytest.mark.parametrize("form", [*FORMS, *LOSSY])
def test_damaged_films_raise_nothing_but_lab_errors(tmp_path, form):
    path = (FORMS | LOSSY)[form](tmp_path, draw(5))
    path = path if path.is_file() else sorted(path.iterdir())[0]
    whole = path.read_bytes()
    for seed in range(25):
        rng = random.Random(seed)
        content = bytearray(whole[: rng.choice([len(whole), len(whole), rng.randrange(len(whole))])])
        for _ in range(rng.choice([1, 4, 40])):
            if content:
                content[rng.randrange(min(len(content), rng.choice([300, 10**6])))] = rng.randrange(256)
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                film = open_film(path if form != "folder" else path.parent)
                read = pixels(film)
            except LabError:
                continue
        assert len(read) == len(film)


def test_a_long_film_is_one_frame_in_memory(tmp_path):
    def peak(film):
        tracemalloc.start()
        for _ in film:
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    for form in ("tiff", "dicom"):
        short, long = (tmp_path / form / str(count) for count in (10, 200))
        [place.mkdir(parents=True) for place in (short, long)]
        films_ = [open_film(FORMS[form](place, draw(int(place.name), (120, 160)))) for place in (short, long)]
        peak(films_[0])
        assert peak(films_[1]) < peak(films_[0]) + 200_000  # 200 frames have 3.8 million bytes


def test_a_video_is_no_playlist(tmp_path):
    write_video(tmp_path / "secret.avi", draw(3), "ffv1", "bgr0")
    for text in ("#EXTM3U\n#EXTINF:10,\nsecret.avi\n", "ffconcat version 1.0\nfile secret.avi\n"):
        (tmp_path / "a.mp4").write_text(text)
        with pytest.raises(LabError, match="no video that can be read"):
            open_film(tmp_path / "a.mp4")


def test_what_is_no_film_is_refused(tmp_path):
    Image.fromarray(draw()[0]).save(tmp_path / "one.png")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    (tmp_path / "two" / "b").mkdir(parents=True)
    (tmp_path / "two" / "a").mkdir()
    for name in ("a", "b"):
        Image.fromarray(draw()[0]).save(tmp_path / "two" / name / "1.png")
    said = {
        "one.png": "holds one picture",
        "text.mp4": "no video",
        "empty": "no folder of frames",
        "two": "in 2 folders",
        "none": "does not exist",
    }
    for name, words in said.items():
        with pytest.raises(LabError, match=words):
            open_film(tmp_path / name)


@pytest.mark.parametrize("beside", ["F1_mask.png", "images/F9.png", "annotations.json"])
def test_a_data_set_is_no_film(tmp_path, beside):
    path = write_folder(tmp_path / "film", draw(3)) / beside.replace("F1", "NOTREAL-0042_F1")
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(draw()[0]).save(path, "png")
    with pytest.raises(LabError, match="is a data set, no film: leave out --out and use --run NAME"):
        open_film(tmp_path / "film")


def test_no_frame_lies_outside_its_folder(tmp_path):
    write_folder(tmp_path / "film", draw(3))
    Image.fromarray(draw()[0]).save(tmp_path / "other.png")
    (tmp_path / "film" / "NOTREAL-0042_F4.png").symlink_to(tmp_path / "other.png")
    with pytest.raises(LabError, match="leads out of"):
        open_film(tmp_path / "film")


def test_a_missing_library_is_one_sentence(tmp_path, monkeypatch):
    paths = {"films": LOSSY["h264 in mp4"](tmp_path, draw(2)), "dicom": FORMS["dicom"](tmp_path, draw(2))}
    for extra, module in {"films": "av", "dicom": "pydicom"}.items():
        monkeypatch.delitem(sys.modules, "sa2va_lab.datasets.dicom", raising=False)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(LabError, match=rf'pip install "sa2va_lab\[{extra}\]"'):
            open_film(paths[extra])


def test_hidden_names_are_pseudonyms(tmp_path):
    paths = [write_dicom(tmp_path / f"NOTREAL-0042_{n}.dcm", draw(2)) for n in (1, 2)]
    names = [film.name for film in open_films(paths, hidden=True)]
    assert sorted(names) == ["P01-V1", "P02-V1"]
    assert [film.name for film in open_films(paths[::-1], hidden=True)] == names[::-1]
    assert {place.video for place in open_films(paths, hidden=True)[0].places()} == {names[0]}
    assert [film.name for film in open_films(paths, hidden=False)] == ["NOTREAL-0042_1", "NOTREAL-0042_2"]


def test_no_reader_of_images_takes_a_films_first_frame(tmp_path):
    video, bare = LOSSY["h264 in mp4"](tmp_path, draw(2)), FORMS["bare dicom"](tmp_path, draw(2))
    for path, what in {
        video: "a video",
        bare: "a DICOM",
        FORMS["gif"](tmp_path, draw(2)): "a file of 2 pictures",
    }.items():
        with pytest.raises(LabError, match=f"is {what}, no image: predict it as a film"):
            read_image(path)
        if path.suffix != ".gif":
            with pytest.raises(LabError, match=f"is {what} and no data set: predict it as a film"):
                open_dataset(path)
        [sample] = open_dataset([path])
        [defect] = sample.defects
        assert (defect.kind, f"it is {what}, no image" in defect.text) == ("image_animated", True)


def test_a_data_set_mentions_the_films_that_it_leaves_out(tmp_path):
    write_dicom(tmp_path / "a.dcm", draw(2))
    write_dicom(tmp_path / "IM7", draw(2))
    (tmp_path / "README").write_text("no film")
    with pytest.raises(LabError, match="2 films .videos, DICOM. left out: predict them as films"):
        open_dataset(tmp_path)
    Image.fromarray(draw()[0]).save(tmp_path / "one.png")
    assert "2 films (videos, DICOM) left out" in open_dataset(tmp_path).reason
