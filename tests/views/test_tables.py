from sa2va_lab.views.tables import Table

TABLE = Table(["Image", "Dice", "Note"], [["P01-V1-F001", "0.500", "a < b"], ["P01-V1-F002", "–", ""]])


def test_headers_have_their_scope_and_numbers_go_right():
    html = TABLE._repr_html_()
    assert html.count('scope="col"') == 3
    assert html.count('scope="row"') == 2
    assert '<td class="number" style="text-align:right">0.500</td>' in html
    assert '<td style="text-align:left">a &lt; b</td>' in html


def test_shares_and_sizes_are_numbers_too():
    html = Table(["Part", "Share", "Size", "Words", "None"], [["x", "5.45%", "100.6 MiB", "5 %x", "–"]])._repr_html_()
    assert html.count('<td class="number"') == 2


def test_text_form_is_aligned():
    assert repr(TABLE).splitlines() == ["Image        Dice   Note", "P01-V1-F001  0.500  a < b", "P01-V1-F002  –"]


def test_nothing_is_cut_short():
    text = "word " * 100
    assert text in Table(["a", "b"], [["x", text]])._repr_html_()
    assert Table(["a"], [[str(n)] for n in range(2000)])._repr_html_().count("<tr>") == 2001
